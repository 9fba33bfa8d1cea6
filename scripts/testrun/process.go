package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// inGroup gives a command a process group of its own. When the context ends, the whole
// group ends.
func inGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
}

// follow runs a command and returns its error. The command's output is the verbose output
// of the test binary of pkg or, if pkg is empty, the events of go test.
func follow(ctx context.Context, cmd *exec.Cmd, pkg string, add func(event)) error {
	inGroup(cmd)
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		return firstError(err, read.Close(), write.Close())
	}
	_ = write.Close() // the command has its own copy
	var events io.Reader = read
	wait := func() error { return nil }
	if pkg != "" {
		if events, wait, err = convert(ctx, read, pkg); err != nil {
			return firstError(err, cmd.Cancel(), cmd.Wait())
		}
	}
	readErr := readEvents(events, add)
	cmdErr := cmd.Wait()
	return firstError(cmdErr, readErr, wait(), read.Close())
}

// test2json returns the path of Go's program test2json.
var test2json = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "tool", "-n", "test2json").Output()
	if err != nil {
		return "", fmt.Errorf("find test2json: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
})

// convert turns the output of a test binary into events.
func convert(ctx context.Context, in *os.File, pkg string) (io.Reader, func() error, error) {
	program, err := test2json()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, program, "-t", "-p", pkg)
	cmd.Stdin, cmd.Stderr = in, os.Stderr
	// The group of its own keeps an interrupt from the terminal away, so that it reads
	// all output of an interrupted test binary.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	return out, cmd.Wait, cmd.Start()
}

// firstError returns the first error.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
