// Package serving serves the requests of a device that another process controls.
//
// That process has opened everything, and describes it by a Work. It asks for changes of the stores by
// Requests. This package opens no file, and needs no privilege.
package serving
