;; authorizer, ends: memory
(table $one 1 funcref) (table $two 1 funcref) (table $three 1 funcref)
;; body
(drop (table.grow $one (ref.null func) (i32.const 9000)))
(drop (table.grow $two (ref.null func) (i32.const 9000)))
(drop (table.grow $three (ref.null func) (i32.const 9000)))
(call $allow)
