;; component, refused: plugin_imports
(component (import "wasi:sockets/tcp@0.2.0" (instance)))
