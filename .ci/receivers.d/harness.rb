# Asks the sample about one request, as `vectors.py` describes it.
require_relative "sample"

lines = File.binread(ARGV[0]).split("\r\n")
headers = lines.to_h { |line| line.split(": ", 2).then { |name, value| [name, value.to_s] } }
now = ARGV[2] ? [ARGV[2].to_i] : []
exit(verify(ENV["SECRET"], headers, File.binread(ARGV[1]), *now) ? 0 : 10)
