;; A slow guest that stays below all of its limits.
;; authorizer, ends: allow
;; body
(local $left i32)
(local.set $left (i32.const 1000000))
(loop $again
  (local.set $left (i32.sub (local.get $left) (i32.const 1)))
  (br_if $again (local.get $left)))
(call $allow)
