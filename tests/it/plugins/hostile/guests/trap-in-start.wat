;; authorizer, refused: plugin_start
(func $start (unreachable))
(start $start)
;; body
(call $allow)
