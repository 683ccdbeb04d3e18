return answer('ok', said)
