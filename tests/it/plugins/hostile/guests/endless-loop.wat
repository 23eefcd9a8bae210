;; authorizer, ends: fuel deadline
;; body
(loop $again (br $again)) (unreachable)
