package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A machine has equipment that takes a supply only if a test needs it.
func TestGuest(t *testing.T) {
	b := &builder{limit: 10 * time.Minute, short: true, subtests: "/direct"}
	k := &kernelJob{builder: b, bed: newBed("7.3"), pkg: &pkg{Dir: "loop"}, tests: []string{"TestKernelA", "TestKernelB"}, needs: needsOf(ublktest.ScratchDisk)}
	if has := k.has(); has != "cpus,disk,machine,own,plain,systemd" {
		t.Errorf("it has %s", has)
	}
	for _, name := range countVariables {
		t.Setenv(name, "")
	}
	t.Setenv("UBLK_LOOP_KILLS", "100")
	settings := k.settings()
	if !slices.Contains(settings, "UBLK_LOOP_KILLS=100") || slices.ContainsFunc(settings, func(s string) bool {
		return strings.HasPrefix(s, "UBLK_LOOP_ENGINES=") || strings.HasPrefix(s, "UBLK_LOOP_DEVICES=")
	}) {
		t.Errorf("settings are %q", settings)
	}
	if slices.ContainsFunc(settings, isSample) {
		t.Errorf("settings of the newest kernel are %q", settings)
	}
	k.bed.sample = "1"
	if settings := k.settings(); !slices.Contains(settings, "UBLK_LOOP_SAMPLE=1") {
		t.Errorf("settings of an older kernel are %q", settings)
	}
	b.short = false
	if settings := k.settings(); slices.ContainsFunc(settings, isSample) {
		t.Errorf("settings of a full run are %q", settings)
	}
	b.short = true
	k.needs[ublktest.Engines] = true
	if has := k.has(); !strings.Contains(has, "engines") || !slices.Contains(k.settings(), "UBLK_LOOP_ENGINES=/dev/vdb") {
		t.Errorf("with engines it has %s, settings %q", has, k.settings())
	}
	k.needs[ublktest.Suites] = true
	settings = k.settings()
	if !slices.Contains(settings, "UBLK_LOOP_ENGINES=/dev/vdb") || !slices.Contains(settings, "UBLK_LOOP_SUITES=/dev/vdc") {
		t.Errorf("with two images, settings are %q", settings)
	}
	delete(k.needs, ublktest.Engines)
	if settings = k.settings(); !slices.Contains(settings, "UBLK_LOOP_SUITES=/dev/vdb") {
		t.Errorf("with suites alone, settings are %q", settings)
	}
	want := []string{"-test.v=test2json", "-test.run", "^(TestKernelA|TestKernelB)$/direct", "-test.timeout", "540s", "-test.short"}
	if got := k.arguments(); !slices.Equal(got, want) {
		t.Errorf("arguments are %q, want %q", got, want)
	}
	k.count = 20
	if got := k.arguments(); !slices.Contains(got, "-test.count=20") {
		t.Errorf("arguments are %q, want -test.count=20 among them", got)
	}
}

func isSample(setting string) bool { return strings.HasPrefix(setting, "UBLK_LOOP_SAMPLE=") }

// Only beds whose tests of the tier quick all run on another bed too have samples.
func TestSamples(t *testing.T) {
	beds := testBeds()
	numberSamples(beds)
	samples := map[string]string{}
	for _, b := range beds {
		samples[b.name] = b.sample
	}
	if want := map[string]string{"uml": "", "uml-race": "", "7.3": "", "6.18": "0", "6.12": "1", "host": ""}; !maps.Equal(samples, want) {
		t.Errorf("samples are %v, want %v", samples, want)
	}
}

func TestBeds(t *testing.T) {
	t.Setenv("UBLK_LOOP_CONTAINERD", "")
	dir := tree(t, map[string]string{"linux": ""})
	for kernel, want := range map[string]struct {
		kind   kind
		cpus   bool
		suites string
		arch   string
	}{
		"7.3": {machine, true, "trixie", ""}, "6.12": {machine, true, "bookworm", ""}, "uml": {uml, false, "bookworm trixie", ""},
		dir: {uml, false, "bookworm trixie", ""}, t.TempDir(): {machine, true, "trixie", ""},
		"7.3-arm64": {machine, true, "trixie", "arm64"}, "/kernels/mine-arm64": {machine, true, "trixie", "arm64"},
	} {
		b := newBed(kernel)
		if b.kind != want.kind || b.has[ublktest.CPUs] != want.cpus || strings.Join(b.suites, " ") != want.suites || b.build() != (build{arch: want.arch}) {
			t.Errorf("%s: %+v", kernel, b)
		}
	}
	if r := newBed("uml").withRace(); r.has[ublktest.Plain] || !r.has[ublktest.Own] || r.name != "uml-race" || r.kernel != "uml" {
		t.Errorf("with the race detector: %+v", r)
	}
}
