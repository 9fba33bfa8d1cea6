package docs

import (
	"regexp"
	"strings"
	"testing"
)

// The programs in the README are those of ublk/example, without their imports.
func TestPrograms(t *testing.T) {
	readme := read(t, func(path string) bool { return path == "README.md" })["README.md"]
	programs := read(t, func(path string) bool {
		return strings.HasPrefix(path, "ublk/example/") && strings.HasSuffix(path, "/main.go")
	})
	for path, program := range programs {
		if _, rest, found := strings.Cut(readme, "]("+path+")"); !found {
			t.Errorf("README.md does not link %s", path)
		} else if code := regexp.MustCompile("(?s)```go\n(.*?)```").FindStringSubmatch(rest); code == nil || !strings.HasSuffix(program, "\n"+code[1]) {
			t.Errorf("README.md differs from %s", path)
		}
	}
}
