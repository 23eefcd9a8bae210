;; component, refused: plugin_imports
(component (import "now" (func (result u64))))
