package helptext

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

const (
	// DefaultWidth is the width of help that is not printed on a terminal.
	DefaultWidth = 80
	minWidth     = 40
	maxWidth     = 100
	// maxLeft is the longest name beside its text. The text of a longer one is below it.
	maxLeft = 28
)

// Help makes the command and those below it print their help in lines of at most the
// number of characters that width returns.
func Help(root *cobra.Command, width func() int) {
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		cmd.InitDefaultHelpFlag()
		p := &page{width: max(minWidth, min(width(), maxWidth))}
		p.command(cmd)
		_, _ = io.WriteString(cmd.OutOrStdout(), p.text.String())
	})
}

// page is the help of a command.
type page struct {
	text  strings.Builder
	width int
}

func (p *page) command(cmd *cobra.Command) {
	long := cmd.Long
	if long == "" {
		long = cmd.Short
	}
	for line := range strings.Lines(long) {
		text := strings.TrimLeft(line, " \t")
		p.item(strings.ReplaceAll(line[:len(line)-len(text)], "\t", "    "), 0, text)
	}
	p.text.WriteString("\nUsage:\n")
	if cmd.Runnable() {
		p.item("  "+cmd.UseLine(), 4, "")
	}
	var commands []*cobra.Command
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() || sub.Name() == "help" {
			commands = append(commands, sub)
		}
	}
	if len(commands) > 0 {
		p.item("  "+cmd.CommandPath()+" [command]", 4, "")
		p.text.WriteString("\nAvailable Commands:\n")
		for _, sub := range commands {
			p.item("  "+sub.Name(), 2+cmd.Commands()[0].NamePadding()+1, sub.Short)
		}
	}
	p.flags(cmd.LocalFlags())
	if len(commands) > 0 {
		p.text.WriteString("\n")
		p.item("", 0, "Use \""+cmd.CommandPath()+" [command] --help\" for more information about a command.")
	}
}

// flags adds the flags of a command.
func (p *page) flags(flags *pflag.FlagSet) {
	type row struct{ left, text string }
	var rows []row
	column := 0
	flags.VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden {
			return
		}
		left, text := describe(flag)
		rows = append(rows, row{left, text})
		if length := utf8.RuneCountInString(left); length <= maxLeft {
			column = max(column, length+2)
		}
	})
	if len(rows) == 0 {
		return
	}
	p.text.WriteString("\nFlags:\n")
	for _, r := range rows {
		p.item(r.left, column, r.text)
	}
}

// describe returns a flag with the name of its value, and its text with the default.
func describe(flag *pflag.Flag) (left, text string) {
	value, text := pflag.UnquoteUsage(flag)
	text = strings.ReplaceAll(text, "\n", " ")
	left = "      --" + flag.Name
	if flag.Shorthand != "" {
		left = "  -" + flag.Shorthand + ", --" + flag.Name
	}
	switch {
	case value == "":
	case flag.NoOptDefVal != "":
		left += "[=" + value + "]"
		text += " (default " + value + ": " + flag.NoOptDefVal + ")"
	default:
		left += " " + value
	}
	switch flag.DefValue {
	case "", "0", "0s", "false":
	default:
		text += " (default " + flag.DefValue + ")"
	}
	return left, text
}

// item adds text beside a name, or below a long one. The text is broken into lines, which
// begin at a column.
func (p *page) item(left string, column int, text string) {
	var line strings.Builder
	line.WriteString(left)
	used := utf8.RuneCountInString(left)
	if left != "" && text != "" && used+1 > column && strings.TrimSpace(left) != "" {
		p.text.WriteString(line.String() + "\n")
		line.Reset()
		used = 0
	}
	begins := true
	for word := range strings.FieldsSeq(text) {
		length := utf8.RuneCountInString(word)
		if !begins && used+1+length > p.width {
			p.text.WriteString(line.String() + "\n")
			line.Reset()
			used, begins = 0, true
		}
		if begins {
			line.WriteString(strings.Repeat(" ", max(0, column-used)))
			used, begins = max(used, column), false
		} else {
			line.WriteByte(' ')
			used++
		}
		line.WriteString(word)
		used += length
	}
	p.text.WriteString(line.String() + "\n")
}

// Width returns the number of characters in a line of a terminal, or DefaultWidth for
// another output.
func Width(out io.Writer) int {
	if file, ok := out.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return int(size.Col)
		}
	}
	return DefaultWidth
}
