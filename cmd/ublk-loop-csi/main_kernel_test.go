package main

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// asDriver makes the test binary run as the driver, so that tests need no second program.
const asDriver = "UBLK_LOOP_TEST_DRIVER"

// stepsFile is the variable with the path of a file. If it is set, the driver kills itself at the
// end of each step whose name the file does not have, and adds the name.
const stepsFile = "UBLK_LOOP_TEST_STEPS"

func endAtSteps(path string) func(name string) {
	if path == "" {
		return nil
	}
	return func(name string) {
		known, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(known), name+"\n") {
			return
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err == nil {
			_, err = f.WriteString(name + "\n")
		}
		if err != nil {
			panic(err)
		}
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {} // the signal is on its way
	}
}

func TestMain(m *testing.M) {
	if os.Getenv(asDriver) != "" {
		_ = os.Unsetenv(asDriver)
		step = endAtSteps(os.Getenv(stepsFile))
		main()
		return
	}
	os.Exit(m.Run())
}
