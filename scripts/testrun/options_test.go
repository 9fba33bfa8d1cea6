package main

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		args  string
		check func(o *options) bool
	}{
		{"", func(o *options) bool { return o.tier == quick && o.isWhole() && o.limit == limits[quick] }},
		{"--unit", func(o *options) bool { return o.tier == unit && !o.isWhole() }},
		{"--tier full --resume", func(o *options) bool { return o.tier == full && o.resume && o.isWhole() }},
		{"--kernel 7.3 --package ./loop --run TestX/sub", func(o *options) bool {
			return !o.isWhole() && o.kernels[0] == "7.3" && o.packages[0] == "./loop" && o.run.MatchString("TestX") && !o.run.MatchString("sub")
		}},
		{"--count 5", func(o *options) bool { return o.count == 5 && !o.isWhole() }},
		{"--run TestX", func(o *options) bool { return !o.isWhole() }},
	} {
		o, err := parse(strings.Fields(c.args), t.Output())
		if err != nil || !c.check(o) {
			t.Errorf("%q: error %v, %+v", c.args, err, o)
		}
	}
	for _, args := range []string{"--tier fast", "--unit --tier full", "--unit --kernel 7.3", "loop", "--nothing", "--run (", "--count 0"} {
		if _, err := parse(strings.Fields(args), &strings.Builder{}); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("JOBS", "7")
	t.Setenv("UBLK_LOOP_TEST_TIMEOUT", "90")
	t.Setenv("UBLK_LOOP_CACHE", "/somewhere")
	o, err := parse(nil, t.Output())
	if err != nil || o.jobs != 7 || o.limit != 90*time.Second || o.cache != "/somewhere" {
		t.Errorf("error %v, %+v", err, o)
	}
	t.Setenv("JOBS", "0")
	if _, err := parse(nil, &strings.Builder{}); err == nil {
		t.Error("no jobs are taken")
	}
}
