;; authorizer, refused: plugin_too_complex
(memory $other 65536)
;; body
(call $allow)
