(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  const theme = document.getElementById("theme");
  const kept = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("mechtests-theme");
      localStorage.setItem("mechtests-theme", value);
    } catch { /* a page from a file may have no storage */ }
    return null;
  };
  const dark = () => root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  if (["light", "dark"].includes(kept())) root.dataset.theme = kept();
  theme.setAttribute("aria-label", "change between light and dark");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    kept(root.dataset.theme);
    name();
  });
  name();

  const form = document.getElementById("filters");
  const status = document.getElementById("status");
  const table = document.querySelector(".m");
  const records = all("details.r");
  const total = records.length;
  const heads = all("thead tr:last-child th[data-m]", table);
  const columns = heads.map((head) => head.dataset.m);
  form.hidden = false;

  const filter = () => {
    const { q, paper, task, model, verdict } = Object.fromEntries(new FormData(form));
    const words = q.toLowerCase().split(/\s+/).filter(Boolean);
    const has = (text) => words.every((word) => text.includes(word));
    let shown = 0;
    for (const record of records) {
      const { m, t = "", v } = record.dataset;
      const claim = record.closest("article");
      const right = (!paper || claim.parentNode.dataset.p === paper) && (!task || t === task) &&
        (!model || m === model) && (!verdict || v === verdict) &&
        (!words.length || has(`${claim.dataset.q} ${t.toLowerCase()} ${m.toLowerCase()}`));
      record.hidden = !right;
      shown += right;
    }
    for (const claim of all("article.claim")) claim.hidden = !claim.querySelector("details.r:not([hidden])");
    for (const part of all("section.paper")) part.hidden = !part.querySelector("article:not([hidden])");
    all("thead [data-m]", table).forEach((head) => { head.hidden = Boolean(model) && head.dataset.m !== model; });
    for (const body of all("tbody", table)) {
      let any = false;
      for (const row of all("tr[data-q]", body)) {
        let here = false;
        [...row.children].slice(1).forEach((cell, place) => {
          cell.hidden = Boolean(model) && columns[place] !== model;
          const link = cell.firstElementChild;
          if (!link) return;
          const record = document.getElementById(link.hash.slice(1)).parentNode;
          cell.classList.toggle("off", record.hidden);
          here ||= !record.hidden;
        });
        row.hidden = !here;
        any ||= here;
      }
      body.hidden = !any;
    }
    status.textContent = shown === total ? `all ${total} verdicts` : `${shown} of ${total} verdicts`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  filter();

  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (!target) return;
    if (target.hidden || target.closest("[hidden]")) { form.reset(); filter(); }
    const record = target.closest("details.r");
    if (!record) return;
    record.open = true;
    record.firstElementChild.focus({ preventScroll: true });
    record.scrollIntoView({ block: "start" });
  };
  addEventListener("hashchange", reveal);
  reveal();

  const opener = document.getElementById("open");
  opener.addEventListener("click", () => {
    const shown = records.filter((record) => !record.hidden);
    const open = !shown.every((record) => record.open);
    shown.forEach((record) => { record.open = open; });
    opener.textContent = open ? "Close all" : "Open all";
  });

  document.addEventListener("toggle", (event) => {
    if (!event.target.open) return;
    for (const command of all(".cmd", event.target)) {
      if (command.querySelector("button") || !navigator.clipboard) continue;
      const copy = document.createElement("button");
      copy.type = "button";
      copy.textContent = "Copy";
      copy.addEventListener("click", async () => {
        await navigator.clipboard.writeText(command.querySelector("code").textContent);
        copy.textContent = "Copied";
      });
      command.append(copy);
    }
  }, true);
})();
