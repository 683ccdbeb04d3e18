-- What ended, without a claim after it.
flush()
flush_history()
flush_sources()
return answer('ok', unpack(said))
