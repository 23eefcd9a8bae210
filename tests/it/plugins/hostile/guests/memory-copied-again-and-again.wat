;; authorizer, ends: fuel
;; body
(drop (memory.grow (i32.const 60)))
(loop $again
  (memory.copy (i32.const 2000000) (i32.const 0) (i32.const 1900000))
  (br $again))
(unreachable)
