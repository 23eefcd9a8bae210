;; authorizer, refused: plugin_too_complex
(table 10000000 funcref)
;; body
(call $allow)
