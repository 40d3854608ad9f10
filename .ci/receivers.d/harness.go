// Asks the sample about one request, as `vectors.py` describes it.
package main

import (
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	lines, _ := os.ReadFile(os.Args[1])
	body, _ := os.ReadFile(os.Args[2])
	headers := http.Header{}
	for _, line := range strings.Split(string(lines), "\r\n") {
		if name, value, found := strings.Cut(line, ": "); found {
			headers.Add(name, value)
		}
	}
	now := time.Now()
	if len(os.Args) > 3 {
		seconds, _ := strconv.ParseInt(os.Args[3], 10, 64)
		now = time.Unix(seconds, 0)
	}
	if !Verify(os.Getenv("SECRET"), headers, body, now) {
		os.Exit(10)
	}
}
