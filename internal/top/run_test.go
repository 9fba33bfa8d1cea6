package top

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
)

// Without a terminal, the tables follow one below the other.
func TestRun(t *testing.T) {
	var out strings.Builder
	reads := uint64(0)
	stats := func(context.Context) (client.Stats, error) {
		reads++
		return snapshotAt(0, statsOf(reads)).stats, nil
	}
	if err := Run(t.Context(), &out, Options{Interval: time.Millisecond, Count: 2}, stats); err != nil {
		t.Fatal(err)
	}
	tables := strings.Split(out.String(), "\n\n")
	if len(tables) != 2 || !strings.HasPrefix(tables[0], topHeader) || !strings.HasPrefix(tables[1], topHeader) || reads != 3 {
		t.Errorf("after %d questions the output is\n%s", reads, &out)
	}
}
