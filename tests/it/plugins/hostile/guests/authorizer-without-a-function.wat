;; component, refused: plugin_exports
(component
  (instance $a)
  (export "roster:policy/authorizer@1.0.0" (instance $a)))
