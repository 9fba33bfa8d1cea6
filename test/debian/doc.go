// Package debian tests the packages of ublk-loop: their bytes, and what they do in a small Debian
// that boots with systemd on a user-mode kernel.
package debian
