# The real Durable Objects: three classes that do what scenarios say, their storage on disk, alarms on.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    (name = "disk", disk = (path = "", writable = true)),  # the path is given on the command line
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);

const worker :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "2026-11-01",
  durableObjectNamespaces = [
    (className = "Subject", uniqueKey = "subject", enableSql = true),
    (className = "Other", uniqueKey = "other", enableSql = true),
    (className = "Plain", uniqueKey = "plain", enableSql = true),
  ],
  durableObjectStorage = (localDisk = "disk"),
  bindings = [
    (name = "Subject", durableObjectNamespace = "Subject"),
    (name = "Other", durableObjectNamespace = "Other"),
    (name = "Plain", durableObjectNamespace = "Plain"),
  ],
);
