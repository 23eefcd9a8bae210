;; component, refused: plugin_too_complex
(component
  (core module $m (tag) (func (throw 0)))
  (instance $a)
  (export "roster:policy/authorizer@1.0.0" (instance $a)))
