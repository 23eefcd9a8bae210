;; 257 roles of three letters each.
;; role-mapper, ends: output
;; body
(local $n i32) (local $at i32)
(loop $again
  (local.set $at (i32.add (i32.const 16384) (i32.shl (local.get $n) (i32.const 2))))
  (i32.store8 (local.get $at) (i32.add (i32.const 97) (i32.and (local.get $n) (i32.const 7))))
  (i32.store8 offset=1 (local.get $at) (i32.add (i32.const 97) (i32.and (i32.shr_u (local.get $n) (i32.const 3)) (i32.const 7))))
  (i32.store8 offset=2 (local.get $at) (i32.add (i32.const 97) (i32.shr_u (local.get $n) (i32.const 6))))
  (i32.store (i32.add (i32.const 8192) (i32.shl (local.get $n) (i32.const 3))) (local.get $at))
  (i32.store (i32.add (i32.const 8196) (i32.shl (local.get $n) (i32.const 3))) (i32.const 3))
  (local.set $n (i32.add (local.get $n) (i32.const 1)))
  (br_if $again (i32.lt_u (local.get $n) (i32.const 257))))
(call $list (i32.const 8192) (i32.const 257))
