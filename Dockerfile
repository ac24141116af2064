# Copse in a container: the static binary and nothing else. Build the binary first, for the image's platform:
#   make build && docker build -t copse .
# Run it with a volume for the data, behind something that speaks TLS:
#   docker run -v copse:/data -e COPSE_BEHIND_TLS_PROXY=true -e COPSE_LISTEN=:8420 -p 8420:8420 copse
FROM scratch
# Certificates of public authorities, to fetch issuers' keys by; the build context has none, so name them:
#   docker build --build-context certs=/etc/ssl/certs .
COPY --from=certs ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY bin/copse /copse
USER 65532:65532
ENV COPSE_DATA=/data
VOLUME /data
EXPOSE 8420
ENTRYPOINT ["/copse"]
CMD ["serve"]
