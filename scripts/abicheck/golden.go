package abicheck

import (
	"fmt"
	"os"
	"strings"
)

// keyWords is the number of words in the key of a golden line. The rest of the
// line is the value: a number, a size in bytes, or an offset and a size in
// bytes.
var keyWords = map[string]int{"const": 2, "size": 3, "offset": 3}

// readGolden returns the entries of the golden file at path. A line that begins
// with # is a comment.
func readGolden(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	entries := map[string]string{}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		n, ok := keyWords[words[0]]
		if !ok || len(words) <= n {
			return nil, fmt.Errorf("read %s: odd line %q", path, line)
		}
		entries[strings.Join(words[:n], " ")] = strings.Join(words[n:], " ")
	}
	return entries, nil
}
