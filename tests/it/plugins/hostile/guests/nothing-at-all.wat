;; component, refused: plugin_exports
(component)
