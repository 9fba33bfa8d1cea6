package oci

import (
	"strings"
	"testing"
)

func TestParseCall(t *testing.T) {
	for line, want := range map[string]call{
		"":                                {},
		"--version":                       {},
		"--root":                          {},
		"--root create":                   {},
		"delete --force x":                {command: "delete"},
		"exec x create --bundle /b":       {command: "exec"},
		"create x":                        {command: "create"},
		"create --bundle /b x":            {command: "create", bundle: "/b"},
		"create --bundle=/b x":            {command: "create", bundle: "/b"},
		"create -bundle /b x":             {command: "create", bundle: "/b"},
		"create -b /b x":                  {command: "create", bundle: "/b"},
		"create -b/b x":                   {command: "create", bundle: "/b"},
		"run -d -b /b x":                  {command: "run", bundle: "/b"},
		"run -db /b x":                    {command: "run", bundle: "/b"},
		"run --detach -b /b x":            {command: "run", bundle: "/b"},
		"run -no-subreaper -b /b x":       {command: "run", bundle: "/b"},
		"run --bundle /a --bundle /b x":   {command: "run", bundle: "/b"},
		"run --bund /b x":                 {command: "run", bundle: "/b"},
		"run --bundle":                    {command: "run"},
		"run --pid-file /p -b /b x -b /c": {command: "run", bundle: "/c"},
		"run -- -b /b":                    {command: "run"},
		"run x -b /b":                     {command: "run", bundle: "/b"},
		"create x --bundle=/b":            {command: "create", bundle: "/b"},
		"create x y -bundle /b z":         {command: "create", bundle: "/b"},
		"create x -- --bundle=/b":         {command: "create"},
		"create x --pid-file -- -b /b":    {command: "create", bundle: "/b"},
		"create - -b /b":                  {command: "create", bundle: "/b"},
		"create --root -- -b /b x":        {command: "create", bundle: "/b"},
		"run x --log /l -b /b":            {command: "run", bundle: "/b", log: "/l"},
		"run x --log":                     {command: "run"},
		"run -no-mount-fallback -b /b x":  {command: "run", bundle: "/b"},
		"run -some-flag-b x -b /b":        {command: "run", bundle: "/b"},
		"run -dfb x":                      {command: "run", config: "b"},
		"-- run x -b /b":                  {command: "run", bundle: "/b"},
		"-- -- run x":                     {command: "--"},
		"run --preserve-fds 3 --console-socket /s --pidfd-socket /s --no-pivot --bundle /b x": {command: "run", bundle: "/b"},
		"run --config /c.json x": {command: "run", config: "/c.json"},
		"run -f c.json x":        {command: "run", config: "c.json"},
		"--root /r --log /l --log-format json --systemd-cgroup create --bundle /b x": {command: "create", bundle: "/b", log: "/l", logFormat: "json"},
		"--root=/r --log=/l --log-format=text --debug=true --rootless=auto run x":    {command: "run", log: "/l", logFormat: "text"},
		"-log /l -systemd-cgroup -debug create x":                                    {command: "create", log: "/l"},
		"--criu /criu --rootless true --cgroup-manager systemd --log-level debug run x": {
			command: "run",
		},
		"--log-f json --cgroup-manager=cgroupfs run x": {command: "run", logFormat: "json"},
		"--log-level=debug -- run x":                   {command: "run"},
		"--unknown run x":                              {command: "run"},
		"- run":                                        {command: "-"},
	} {
		if want.bundle == "" {
			want.bundle = "."
		}
		if got := parseCall(strings.Fields(line)); got != want {
			t.Errorf("%q is %+v, want %+v", line, got, want)
		}
	}
}

func FuzzParseCall(f *testing.F) {
	f.Add("--root /r create -b /b x")
	f.Add("-db -b= run --log")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, " ")
		c := parseCall(args)
		for _, value := range []string{c.command, c.config, c.log, c.logFormat} {
			if !strings.Contains(line, value) {
				t.Errorf("%q has no %q", line, value)
			}
		}
	})
}
