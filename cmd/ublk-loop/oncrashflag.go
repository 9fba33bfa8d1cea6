package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/ublk-loop/ublk-loop/loop"
)

// onCrashFlag is the policy for a device whose server is killed.
type onCrashFlag struct{ value *loop.OnCrash }

var _ pflag.Value = onCrashFlag{}

// Set implements pflag.Value.
func (f onCrashFlag) Set(text string) error {
	switch v := loop.OnCrash(text); v {
	case loop.CrashFail, loop.CrashRequeue, loop.CrashReissue:
		*f.value = v
		return nil
	}
	return fmt.Errorf("not fail, requeue or reissue")
}

// String implements pflag.Value.
func (f onCrashFlag) String() string {
	if f.value == nil {
		return ""
	}
	return string(*f.value)
}

// Type implements pflag.Value.
func (f onCrashFlag) Type() string { return "fail|requeue|reissue" }
