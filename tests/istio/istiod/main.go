// istiod on a folder of manifests, without Kubernetes.
//
// It is Istio's own server with what `pilot-discovery discovery --configDir` lacks: istiod translates WasmPlugins into
// TrafficExtensions only where its configuration comes from Kubernetes, and at this commit it does not start without
// a cluster. The cluster here is an empty one in memory.
//
// It has one port, on loopback, and says which in its log: discovery by gRPC, and the pages under /debug.
package main

import (
	"flag"
	"reflect"
	"sync/atomic"
	"unsafe"

	"istio.io/istio/pilot/pkg/bootstrap"
	"istio.io/istio/pilot/pkg/config/kube/extensions"
	"istio.io/istio/pilot/pkg/config/kube/file"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pkg/cmd"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/kube/multicluster"
	"istio.io/istio/pkg/log"
)

func main() {
	folder := flag.String("config", "", "the folder of manifests, which is watched")
	mesh := flag.String("mesh", "", "the file of the mesh's configuration")
	flag.Parse()

	args := bootstrap.NewPilotArgs()
	args.Namespace = "istio-system"
	args.RegistryOptions.KubeOptions.DomainSuffix = "cluster.local"
	args.MeshConfigFile = *mesh
	args.ServerOptions.HTTPAddr = "127.0.0.1:0"

	// A file that istiod's validation refuses ends the program; a later change that it refuses changes nothing.
	files, err := file.NewController(
		*folder, args.RegistryOptions.KubeOptions.DomainSuffix, collections.Pilot, args.RegistryOptions.KubeOptions)
	if err != nil {
		log.Fatalf("refused: %v", err)
	}
	warn(files)
	client := kube.NewFakeClient()
	clusters := multicluster.NewController(multicluster.ControllerOptions{Client: client, SystemNamespace: args.Namespace})
	var updates updater

	server, err := bootstrap.NewServer(args, func(server *bootstrap.Server) {
		server.ConfigStores = append(server.ConfigStores, files, extensions.NewController(files, &updates, args.KrtDebugger))
		setClusters(server, clusters)
	})
	if err != nil {
		log.Fatalf("cannot make the server: %v", err)
	}
	updates.server.Store(server)

	stop := make(chan struct{})
	client.RunAndWait(stop)
	if err := clusters.Run(stop); err != nil {
		log.Fatalf("cannot watch the cluster: %v", err)
	}
	if err := server.Start(stop); err != nil {
		log.Fatalf("cannot start the server: %v", err)
	}
	// The page /ready would wait for webhooks, which only a cluster calls.
	log.Info("ready")
	cmd.WaitSignal(stop)
}

// What a cluster would say to who applies a manifest.
func warn(files *file.Controller) {
	for _, schema := range collections.Pilot.All() {
		for _, config := range files.List(schema.GroupVersionKind(), "") {
			if warning, _ := schema.ValidateConfig(config); warning != nil {
				log.Warnf("warned: %s %s: %v", config.GroupVersionKind.Kind, config.Name, warning)
			}
		}
	}
}

// The field is private, and set by the server only where there is Kubernetes.
func setClusters(server *bootstrap.Server, clusters *multicluster.Controller) {
	field := reflect.ValueOf(server).Elem().FieldByName("multiclusterController")
	*(**multicluster.Controller)(unsafe.Pointer(field.UnsafeAddr())) = clusters
}

// The server makes its XDS server after its stores. What changes before it serves is in the first push.
type updater struct {
	model.XDSUpdater
	server atomic.Pointer[bootstrap.Server]
}

func (u *updater) ConfigUpdate(request *model.PushRequest) {
	if server := u.server.Load(); server != nil {
		server.XDSServer.ConfigUpdate(request)
	}
}
