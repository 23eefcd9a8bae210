;; component, refused: not_a_component
(module (func (export "authorize")))
