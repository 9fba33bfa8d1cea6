// Package mounts mounts the devices of volumes, and finds out what is mounted. The kernel's
// mountinfo decides, not what this process remembers.
package mounts
