package daemon

import (
	"fmt"
	"io"
)

// role is what a process is there for. Its name is the first argument of the process.
type role struct {
	name    string
	starter string // the command that starts it
}

// The roles. Their names stay, because a server executes the program of the next version
// by them.
var (
	singleRole = role{"server-of-add", "add"}
	manyRole   = role{"server-of-serve", "serve"}
	scanRole   = role{"scan-of-add", "add"}
	unusedRole = role{"unused-of-serve", "serve"}
)

// notForUsers is the error of a role that a user has asked for.
func (r role) notForUsers(cause error) error {
	if cause == nil {
		return fmt.Errorf("%s: only %s starts it", r.name, r.starter)
	}
	return fmt.Errorf("%s: only %s starts it: %w", r.name, r.starter, cause)
}

// Exit statuses of roles, beside those of package report.
const (
	exitInUse   = 3 // of unused: a device is in use
	exitCrashed = 4 // of many: the devices need another server
)

// Program is what the roles know of this program.
type Program struct {
	Version  string
	Out, Err io.Writer
}

// Run plays a role if the arguments of the process name one, and returns the exit
// status.
func (p *Program) Run(args []string) (status int, isRole bool) {
	if len(args) == 0 {
		return 0, false
	}
	for name, run := range map[string]func([]string) int{
		singleRole.name: p.runSingle, manyRole.name: p.runMany, scanRole.name: p.runScan, unusedRole.name: p.runUnused,
	} {
		if args[0] == name {
			return run(args[1:]), true
		}
	}
	return 0, false
}
