// Package oci puts a file system from an image file under a container: it is
// called in place of an OCI runtime (runc, crun), makes the root directory if
// the container's bundle asks for one, and executes the runtime.
//
//	parse the call -> attach, with a lease -> new mount namespace -> mount
//	-> rewrite config.json -> end the lease -> execute the runtime
//
// Nothing is kept: the mount is in a namespace that only the container is in,
// the device belongs to the connection first and to the mount then. With the
// container's last process the namespace ends, with that the mount, and with
// that the device, whatever ended them. Calls that make no container, and
// bundles that ask for nothing, reach the runtime as they are.
//
// Hooks do the same for engines that call them: the mount is then made where the
// runtime finds it, for the moment until the container has one of its own.
//
// A bundle asks by annotations. Who writes them may be anybody who may start a
// container, so they name images below directories of the settings only, and
// mount options of a list.
//
// Failures are told in words that a container engine takes for no other
// failure: podman looks for some errors of the kernel in what a runtime says.
package oci
