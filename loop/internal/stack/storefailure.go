package stack

import (
	"fmt"

	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
)

// A StoreFailure says that a store was full or has failed.
type StoreFailure struct {
	Path  string
	State string // cow.Invalid or cow.Overflow
}

// String describes the failure in one line.
func (f *StoreFailure) String() string {
	fails := "all requests fail"
	if f.State == cow.Overflow {
		fails = "all writes fail"
	}
	return fmt.Sprintf("store %s: %s: it was full or could not be written; %s from now on", f.Path, f.State, fails)
}

// failuresAhead is the number of failures that can wait for their reader. A store fails at
// most twice, and most devices write to one store.
const failuresAhead = 16

// reportFailure returns the function that a store calls when it fails. The thread of a queue
// can call it, so it never waits: if too many failures wait for their reader, a report is lost.
func (s *Stack) reportFailure(path string) func(state string) {
	return func(state string) { s.ReportFailure(StoreFailure{path, state}) }
}

// ReportFailure adds a failure that another process has found, which serves the stack.
func (s *Stack) ReportFailure(f StoreFailure) {
	select {
	case s.failures <- f:
	default:
	}
}

// Failures returns the channel that receives the failures of stores.
func (s *Stack) Failures() <-chan StoreFailure { return s.failures }
