;; component, refused: plugin_malformed
(component
  (core module $m (memory i64 1))
  (instance $a)
  (export "roster:policy/authorizer@1.0.0" (instance $a)))
