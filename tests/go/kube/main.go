// Kube-apiserver is the real one, built from its own module: RBAC, admission policies in CEL, all
// built-in kinds.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}
