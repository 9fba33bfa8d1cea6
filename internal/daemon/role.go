package daemon

import (
	"fmt"
	"io"
)

// role is the purpose of a process. Its name is the first argument of the process.
type role struct {
	name    string
	starter string // the command that starts the role
}

// A role's name must not change, because a server executes the program of the next
// version by it.
var (
	singleRole  = role{"server-of-add", "add"}
	manyRole    = role{"server-of-serve", "serve"}
	superRole   = role{"supervisor-of-serve", "serve"}
	scanRole    = role{"scan-of-add", "add"}
	unusedRole  = role{"unused-of-serve", "serve"}
	claimedRole = role{"claimed-of-add", "add"}
	writeRole   = role{"write-of-add", "add"}
	apartRole   = role{"requests-of-add", "add"}

	apartManyRole = role{"requests-of-serve", "serve"}
	metricsRole   = role{"metrics-of-serve", "serve"}
)

// notForUsers is the error when a user names a role.
func (r role) notForUsers(cause error) error {
	if cause == nil {
		return fmt.Errorf("%s: only %s starts it", r.name, r.starter)
	}
	return fmt.Errorf("%s: only %s starts it: %w", r.name, r.starter, cause)
}

// These are the exit statuses of roles, beside those of package report.
const (
	exitCrashed = 4 // role many: another server must take over the devices
)

// Program is the information that roles need about this program.
type Program struct {
	Version  string
	Out, Err io.Writer
}

// Run plays the role that the arguments of the process name, if any, and returns the exit
// status.
func (p *Program) Run(args []string) (status int, isRole bool) {
	if len(args) == 0 {
		return 0, false
	}
	for name, run := range map[string]func([]string) int{
		singleRole.name: p.runSingle, manyRole.name: p.runMany, superRole.name: p.runSupervisor, scanRole.name: p.runScan, unusedRole.name: p.runUnused,
		claimedRole.name: p.runClaimed, writeRole.name: p.runWrite, apartRole.name: p.runApartSingle, apartManyRole.name: p.runApartMany,
		metricsRole.name: p.runMetrics,
	} {
		if args[0] == name {
			return run(args[1:]), true
		}
	}
	return 0, false
}
