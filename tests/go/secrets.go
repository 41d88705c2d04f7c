package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/validation/field"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

var secrets = schema.GroupResource{Resource: "secrets"}

// installSecrets serves /api/v1/.../secrets over the generic registry, encoded and encrypted as
// kube-apiserver stores them.
func installSecrets(
	server *genericapiserver.GenericAPIServer,
	config *genericapiserver.RecommendedConfig,
	o *options.CustomResourceDefinitionsServerOptions,
) error {
	scheme, codecs := coreScheme()
	etcd := *o.RecommendedOptions.Etcd
	proto := protobuf.NewSerializer(scheme, scheme)
	etcd.StorageConfig.Codec = codecs.CodecForVersions(
		proto, codecs.UniversalDeserializer(), corev1.SchemeGroupVersion, internal)
	factory := &genericoptions.SimpleStorageFactory{StorageConfig: etcd.StorageConfig}
	getter := etcd.CreateRESTOptionsGetter(factory, config.ResourceTransformers)
	strategy := secretStrategy{scheme, names.SimpleNameGenerator}
	store := &registry.Store{
		NewFunc:                   func() runtime.Object { return &corev1.Secret{} },
		NewListFunc:               func() runtime.Object { return &corev1.SecretList{} },
		DefaultQualifiedResource:  secrets,
		SingularQualifiedResource: schema.GroupResource{Resource: "secret"},
		CreateStrategy:            strategy,
		UpdateStrategy:            strategy,
		DeleteStrategy:            strategy,
		TableConvertor:            rest.NewDefaultTableConvertor(secrets),
	}
	if err := store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: getter}); err != nil {
		return err
	}
	group := genericapiserver.NewDefaultAPIGroupInfo("", scheme, runtime.NewParameterCodec(scheme), codecs)
	group.VersionedResourcesStorageMap["v1"] = map[string]rest.Storage{"secrets": store}
	return server.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, &group)
}

// describeSecrets adds what OpenAPI has to say of them: objects of any shape.
func describeSecrets(config *genericapiserver.RecommendedConfig) {
	known := config.OpenAPIV3Config.GetDefinitions
	all := func(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
		definitions := known(ref)
		for _, kind := range []string{"Secret", "SecretList"} {
			object := spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
			object.AddExtension("x-kubernetes-preserve-unknown-fields", true)
			definitions["io.k8s.api.core.v1."+kind] = common.OpenAPIDefinition{Schema: object}
		}
		return definitions
	}
	core, _ := coreScheme()
	namer := openapinamer.NewDefinitionNamer(apiserver.Scheme, core)
	config.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(all, namer)
}

var internal = schema.GroupVersion{Group: "", Version: runtime.APIVersionInternal}

// coreScheme knows Secrets, and has one Go type for the stored and the internal version.
func coreScheme() (*runtime.Scheme, serializer.CodecFactory) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Secret{}, &corev1.SecretList{})
	scheme.AddKnownTypes(internal, &corev1.Secret{}, &corev1.SecretList{})
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	_ = scheme.SetVersionPriority(corev1.SchemeGroupVersion)
	return scheme, serializer.NewCodecFactory(scheme)
}

type secretStrategy struct {
	runtime.ObjectTyper
	names.NameGenerator
}

func (secretStrategy) NamespaceScoped() bool                                   { return true }
func (secretStrategy) AllowCreateOnUpdate(context.Context) bool                { return false }
func (secretStrategy) AllowUnconditionalUpdate(context.Context) bool           { return true }
func (secretStrategy) Canonicalize(runtime.Object)                             {}
func (secretStrategy) PrepareForCreate(context.Context, runtime.Object)        {}
func (secretStrategy) PrepareForUpdate(_ context.Context, _, _ runtime.Object) {}
func (secretStrategy) Validate(context.Context, runtime.Object) field.ErrorList {
	return nil
}
func (secretStrategy) ValidateUpdate(_ context.Context, _, _ runtime.Object) field.ErrorList {
	return nil
}
func (secretStrategy) WarningsOnCreate(context.Context, runtime.Object) []string { return nil }
func (secretStrategy) WarningsOnUpdate(_ context.Context, _, _ runtime.Object) []string {
	return nil
}
