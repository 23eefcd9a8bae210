;; authorizer, ends: trap
;; body
(unreachable)
