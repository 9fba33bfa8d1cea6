package helptext

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// newTree returns a command with a command that has flags of all forms.
func newTree() (root, add *cobra.Command) {
	root = &cobra.Command{Use: "tool", Short: "Make a tool"}
	add = &cobra.Command{Use: "add DEVICE", Short: "Add a thing", Long: "Add a thing.\n\n\tindented\nAnother line that is long enough to be broken.", Run: func(*cobra.Command, []string) {}}
	f := add.Flags()
	f.SortFlags = false
	f.StringP("file", "f", "", "read `FILE`, which has\nmore than one line of text")
	f.String("mode", "auto", "how: `auto|on|off`")
	f.String("a-flag-with-a-long-name", "", "its text is below it, see `BYTES`")
	f.String("time", "", "remove it after `TIME`")
	f.Lookup("time").NoOptDefVal = "10s"
	f.Bool("force", false, "do it")
	f.Int("count", 0, "number of `N`")
	root.AddCommand(add, &cobra.Command{Use: "a-long-command", Short: "Do what other commands do", Run: func(*cobra.Command, []string) {}})
	return root, add
}

// helpOf returns the help of a command line.
func helpOf(t *testing.T, width int, args ...string) string {
	t.Helper()
	root, _ := newTree()
	Help(root, func() int { return width })
	var out strings.Builder
	root.SetOut(&out)
	root.SetArgs(args)
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestHelp(t *testing.T) {
	want := `Add a thing.

    indented
Another line that is long enough to be broken.

Usage:
  tool add DEVICE [flags]

Flags:
  -f, --file FILE         read FILE, which has more than one line of text
      --mode auto|on|off  how: auto|on|off (default auto)
      --a-flag-with-a-long-name BYTES
                          its text is below it, see BYTES
      --time[=TIME]       remove it after TIME (default TIME: 10s)
      --force             do it
      --count N           number of N
  -h, --help              help for add
`
	if got := helpOf(t, 80, "add", "--help"); got != want {
		t.Errorf("the help is\n%s\nwant\n%s", got, want)
	}
}

// No line is wider than asked for.
func TestHelpWidth(t *testing.T) {
	for _, width := range []int{0, 40, 60, 80, 1000} {
		for _, args := range [][]string{{"--help"}, {"add", "--help"}, {"help", "add"}} {
			text := helpOf(t, width, args...)
			for line := range strings.Lines(text) {
				if length := len(strings.TrimSuffix(line, "\n")); length > max(minWidth, min(width, maxWidth)) {
					t.Errorf("width %d: %q is a line of %d", width, line, length)
				}
				if strings.Contains(line, " \n") || strings.Contains(line, "`") {
					t.Errorf("width %d: %q", width, line)
				}
			}
			if len(text) < 100 {
				t.Errorf("%q: only %q", args, text)
			}
		}
	}
}
