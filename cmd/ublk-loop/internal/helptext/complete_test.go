package helptext

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// complete returns what the last of the arguments can be, without the note of cobra to people.
func complete(t *testing.T, devices string, args ...string) string {
	t.Helper()
	root, _ := newTree()
	Completion(root, devices)
	var out strings.Builder
	root.SetOut(&out)
	root.SetErr(new(strings.Builder))
	root.SetArgs(append([]string{cobra.ShellCompRequestCmd}, args...))
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestCompletion(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"ublkb0", "ublkb0p1", "ublkb12", "ublkc0", "sda"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"add", "--mode", ""}, "auto\non\noff\n:4\n"},
		{[]string{"add", "--mode=o"}, "auto\non\noff\n:4\n"}, // the shell selects
		{[]string{"add", "--count", ""}, ":4\n"},
		{[]string{"add", "--file", ""}, ":0\n"},
		{[]string{"add", "--f"}, "--file\tread FILE, which has more than one line of text\n--force\tdo it\n:4\n"},
		{[]string{"add", ""}, dir + "/ublkb0\n" + dir + "/ublkb12\n:0\n"},
	} {
		if got := complete(t, dir, tt.args...); got != tt.want {
			t.Errorf("%q is completed by %q, want %q", tt.args, got, tt.want)
		}
	}
}
