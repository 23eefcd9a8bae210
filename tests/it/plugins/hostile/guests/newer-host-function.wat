;; component, refused: plugin_imports
(component
  (import "roster:policy/host@1.1.0" (instance (export "now" (func (result u64)))))
  (core module $m (func (export "f")))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (instance $a (export "authorize" (func $f)))
  (export "roster:policy/authorizer@1.0.0" (instance $a)))
