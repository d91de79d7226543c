"""How the embedded family was trained: ``python -m training`` (``make embedded``)."""
