// Package systemd has the units of ublk-loop. Tests start them; the command does not use
// them.
package systemd

import "embed"

// Units are the files, by name.
//
//go:embed *.service *.socket *.timer
var Units embed.FS
