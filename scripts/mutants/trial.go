package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

var (
	// errTimeOut means that a test did not end in time.
	errTimeOut = errors.New("time-out")
	// errCaught means that the kernel died together with the test.
	errCaught = errors.New("the kernel died")
)

// try runs tests against a mutant, one after the other, until one fails. It returns an
// error if the tests could not be built or started.
func (t *tier) try(ctx context.Context, m *mutant, tests []*test) (*result, error) {
	dir, err := os.MkdirTemp(t.work, "mutant")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	overlay, err := writeOverlay(m, dir)
	if err != nil {
		return nil, err
	}
	binary := filepath.Join(dir, "test")
	if err := build(ctx, m.pkg, binary, "-overlay", overlay); err != nil {
		return nil, err
	}
	for _, one := range tests {
		out, err := t.tryOne(ctx, m, binary, one)
		if m.verbose {
			fmt.Printf("%s: %s", one.Name, out)
		}
		var exit *exec.ExitError
		switch {
		case err == nil:
		case errors.Is(err, errTimeOut), errors.Is(err, errCaught), errors.As(err, &exit) && exit.ExitCode() != exitNotStarted:
			return &result{Caught: true, How: one.Name + ": " + howCaught(out, err)}, nil
		default:
			return nil, fmt.Errorf("%s: %w: %s", one.Name, err, out)
		}
	}
	return &result{}, nil
}

// tryOne runs a test against a fault. A time-out counts as a failure only if the test
// ends in time without the fault while the machine is as busy as now. Otherwise tryOne
// raises the limit and repeats the test.
func (t *tier) tryOne(ctx context.Context, m *mutant, binary string, one *test) ([]byte, error) {
	took := one.Took
	for {
		limit := max(t.least, limitFactor*took)
		out, err := t.execute(ctx, &execution{pkg: m.pkg, binary: binary, limit: limit, flags: only(one.Name)})
		if !errors.Is(err, errTimeOut) {
			return out, err
		}
		if again, errAgain := t.measure(ctx, m.pkg, one); errAgain != nil {
			return nil, errAgain
		} else if limitFactor*again <= limit {
			return out, err
		} else {
			took = again
		}
	}
}

// measure returns how long a test takes at present without a fault.
func (t *tier) measure(ctx context.Context, p *pkg, one *test) (time.Duration, error) {
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.clean[p] == "" {
		binary := filepath.Join(t.work, p.digest+".test")
		if err := build(ctx, p, binary); err != nil {
			return 0, err
		}
		t.clean[p] = binary
	}
	started := time.Now()
	out, err := t.execute(ctx, &execution{pkg: p, binary: t.clean[p], limit: coverLimit, flags: only(one.Name)})
	if err != nil {
		return 0, fmt.Errorf("%s fails without a fault: %w\n%s", one.Name, err, out)
	}
	return time.Since(started), nil
}

// howCaught returns one line about why a test failed.
func howCaught(out []byte, err error) string {
	if how := firstFailure.Find(out); how != nil && !errors.Is(err, errTimeOut) {
		return string(bytes.TrimSpace(how))
	}
	return err.Error()
}

var firstFailure = regexp.MustCompile(`(?m)^( +\S+_test\.go:\d+: .*|panic: .*|fatal error: .*)`)
