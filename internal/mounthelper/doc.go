// Package mounthelper is the helper that mount(8) executes for file systems of the type
// ublk-loop: it attaches an image and mounts the device.
package mounthelper
