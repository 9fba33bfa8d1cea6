package stack

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
)

// This file has what the layers of a stack find while they serve requests, and report to another
// goroutine: wrong blocks, and stores that fail.

// maxReports is the number of wrong blocks that are reported, as in the kernel
// (DM_VERITY_MAX_CORRUPTED_ERRS in drivers/md/dm-verity-target.c). All are counted.
const maxReports = 100

// A Corruption is a block that the target verity has found to be wrong.
type Corruption struct {
	Table string // name of the table; empty for a table without a name
	// Tree is set for a block of the hash tree.
	Tree bool
	// Block counts the data blocks, or the hash blocks from the start of the tree.
	Block uint64
	// Last is set for the last one that is reported.
	Last bool
}

// String describes the block in one line.
func (c *Corruption) String() string {
	kind := "data"
	if c.Tree {
		kind = "hash"
	}
	text := fmt.Sprintf("%s block %d is corrupted", kind, c.Block)
	if c.Table != "" {
		text = "table " + c.Table + ": " + text
	}
	if c.Last {
		text += "; further ones are only counted"
	}
	return text
}

// corruptions counts and reports wrong blocks.
type corruptions struct {
	count   atomic.Uint64
	reports chan Corruption
}

// newCorruptions returns a counter whose channel has room for all reports, so that add never waits. Without a line that
// can find wrong blocks it has no channel, and add must not be called.
func newCorruptions(verities int) *corruptions {
	c := &corruptions{}
	if verities > 0 {
		c.reports = make(chan Corruption, maxReports)
	}
	return c
}

// add counts a wrong block, and reports it unless enough were reported. The thread of a queue may call it.
func (c *corruptions) add(found Corruption) {
	n := c.count.Add(1)
	if n > maxReports {
		return
	}
	found.Last = n == maxReports
	c.reports <- found
}

// ReportCorruption adds a wrong block that another process has found, which serves the stack. It never waits. A process
// that an attacker controls can report one of a stack without verity: that is dropped.
func (s *Stack) ReportCorruption(found Corruption) {
	if s.Checks() {
		s.corrupt.add(found)
	}
}

// Corruptions returns the number of wrong blocks that were read.
func (s *Stack) Corruptions() uint64 { return s.corrupt.count.Load() }

// CorruptionReports returns the channel that receives the first wrong blocks.
func (s *Stack) CorruptionReports() <-chan Corruption { return s.corrupt.reports }

// A StoreFailure says that a store was full or has failed.
type StoreFailure struct {
	Path  rawname.String
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
	return func(state string) { s.ReportFailure(StoreFailure{rawname.String(path), state}) }
}

// reportLost is cow.Options.Lost.
func (s *Stack) reportLost(returned bool) {
	if returned {
		s.lost.AddReturned(-int32(unix.EIO))
	} else {
		s.lost.Add(-int32(unix.EIO))
	}
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
